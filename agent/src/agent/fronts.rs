//! The front links of this node, up or down.

use std::collections::BTreeMap;

/// The front devices and whether they can carry packets.
#[derive(Clone, Debug, Default)]
pub struct Fronts(BTreeMap<String, bool>);

impl Fronts {
    /// The devices, with what is known of them at the start.
    pub fn new(devices: impl IntoIterator<Item = (String, bool)>) -> Self {
        Self(devices.into_iter().collect())
    }

    /// Notes a device's state; true when it is news about a front device.
    pub fn set(&mut self, device: &str, up: bool) -> bool {
        self.0.get_mut(device).is_some_and(|known| std::mem::replace(known, up) != up)
    }

    /// Whether all are up. An arbiter has none: true.
    pub fn all_up(&self) -> bool {
        self.0.values().all(|up| *up)
    }

    /// Each device and its state.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(device, up)| (device.as_str(), *up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_about_a_front_is_news() {
        let mut fronts = Fronts::new([("eth0".to_owned(), true)]);
        assert!(!fronts.set("eth0", true));
        assert!(!fronts.set("eth9", false));
        assert!(fronts.all_up());
        assert!(fronts.set("eth0", false));
        assert!(!fronts.all_up());
        assert!(Fronts::default().all_up());
    }
}
