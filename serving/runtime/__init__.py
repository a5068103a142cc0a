"""The process of a service: settings, assembly, lifecycle, hosting and supervision."""
