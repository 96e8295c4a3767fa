"""What a data set looks like: a schema, its loaders, and one YAML file per data set."""
