//! The library as other apps use it, on real sockets of the loopback interface.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/large.rs"]
mod large;
#[path = "../common/path.rs"]
mod path;

mod admin;
mod before_send;
mod broadcasts;
mod calls;
mod catch_up;
mod disk;
mod endings;
mod expiry;
mod failures;
mod groups;
mod help;
mod hosts;
mod identities;
mod joins;
mod key_files;
mod keys;
mod leaving;
mod many_groups;
mod opening;
mod outcomes;
mod planned_stops;
mod readers;
mod recipes;
mod recovery;
mod replicas;
mod retention;
mod sessions;
mod slow_links;
mod starts;
mod verdicts;
