//! Names that the writer of a file chose.

use super::reader::Node;

/// Says so when a name is not one that keys, headers and tables can hold.
pub fn check_name(node: &Node<'_>, name: &str) {
    if !is_name(name) {
        node.problem(
            format!("{name:?} cannot be a name"),
            "names are 1 to 64 letters, digits, `_`, `.` and `-`",
        );
    }
}

/// Whether this is a name that keys, headers and tables can hold.
pub fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(sound)
}
