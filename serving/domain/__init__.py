"""Domain types: models, queries, answers, releases and errors. Independent of protobuf, files and clocks."""
