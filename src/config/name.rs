//! Names that the user chose in the file.

use super::reader::Node;

/// Reports a name that keys, headers and tables cannot hold.
pub(super) fn check_name(node: &Node<'_>, name: &str) {
    if !is_name(name) {
        node.problem(
            format!("{name:?} is not a valid name"),
            "names are 1 to 64 letters, digits, `_`, `.` and `-`",
        );
    }
}

/// Whether keys, headers and tables can hold this name.
pub fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(sound)
}
