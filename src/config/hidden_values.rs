//! Hides values of the file that may be secrets, such as the value of a header.

use super::file::Value;
use super::reader::Node;
use crate::experiment::secret_names::names_secret;

impl Node<'_> {
    /// Does this for the value, or for all values in it.
    pub(super) fn each_below(&self, act: &dyn Fn(&Node<'_>)) {
        match self.value {
            Value::Map(map) => {
                let each = map.iter();
                each.for_each(|(key, value)| self.below(key, value).each_below(act));
            }
            Value::List(items) => {
                let each = items.iter().enumerate();
                each.for_each(|(place, value)| {
                    self.below(&place.to_string(), value).each_below(act)
                });
            }
            _ => act(self),
        }
    }

    /// Hides the texts of this value wherever the file is shown.
    pub(super) fn hide(&self) {
        self.each_below(&|node| node.reading.secrets.borrow_mut().push(node.path.clone()));
    }

    /// Does so if the name of the header, cookie or query parameter whose value this is says that it is a secret.
    pub(super) fn hide_if_named(&self, name: &str) {
        if names_secret(name) {
            self.hide();
        }
    }
}
