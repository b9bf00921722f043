//! Facts on local disk, written before the response leaves, read back in order.
