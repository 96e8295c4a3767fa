"""What a data set looks like: a schema, its readers, and one YAML file per data set."""
