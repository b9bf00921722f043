//! Values of the file that may be secrets, although no key says so.

use super::reader::Node;
use super::secret_text::names_secret;

impl Node<'_> {
    /// Hides the texts of this value wherever the file is shown.
    pub fn hide(&self) {
        self.each_below(&|node| node.reading.secrets.borrow_mut().push(node.path.clone()));
    }

    /// Does so if the name of the header, cookie or query parameter whose value this is says that it is a secret.
    pub fn hide_if_named(&self, name: &str) {
        if names_secret(name) {
            self.hide();
        }
    }
}
