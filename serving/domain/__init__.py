"""The product's own terms: models, queries, answers, releases and errors. Knows no protobuf, file or clock."""
