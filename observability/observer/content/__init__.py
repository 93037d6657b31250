"""Recorded content, the observer's side: pieces of bodies in, messages of the conventions out.

`stash` holds what workers send ahead of a record, `load` reads it and takes out what must not be seen, `parts` and
`messages` say it in the conventions' words, `fit` makes it as short as it has to be, `attach` puts it into the record.
"""
