//! Every rule of `spec/00` §2–§6, as tables.
