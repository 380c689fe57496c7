//! Everything that needs a running server: the specification, as sentences.
