"""The configuration: `file` reads it into a `model.Document`, `snapshot` compiles that for serving."""
