//! x

#[cfg(doctest)]
mod book;
