//! Second readings, written from the pages that say what is read and not from the code that reads
//! it: slow, plain, and in agreement with it or one of the two is wrong.

pub mod host;
pub mod http1;
pub mod path;
pub mod served;
