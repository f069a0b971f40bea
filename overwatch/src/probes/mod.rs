//! From facts to attached programs: the catalogue of hooks (a table), the plan (pure), the act of attaching.

pub mod attach;
pub mod capabilities;
pub mod catalogue;
pub mod kretprobe;
pub mod object;
pub mod plan;
pub mod refusal;
pub mod refuse;
pub mod scan;
pub mod seed;
pub mod signals;
