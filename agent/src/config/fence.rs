//! Checks `fence` of a `[[group]]`: a lease keeps a dead owner off the network, and not off a disk.

use super::{
    diagnostic::{Mistakes, did_you_mean},
    model::Fence,
    reader::At,
    resources::RawResource,
};

const WORDS: [(&str, Fence); 2] = [("local", Fence::Local), ("unsafe", Fence::Unsafe)];

/// The group's fences. A group that mounts a block device must have one.
pub(super) fn check(
    given: Option<&At<Vec<At<String>>>>,
    resources: &[RawResource],
    group: &str,
    m: &mut Mistakes<'_>,
) -> Vec<Fence> {
    let Some(given) = given else {
        if let Some((resource, device)) = storage(resources) {
            let name = resource.name.as_ref().map_or("?", |n| &n.value);
            let message = format!(
                "\"{name}\" mounts {device}, and group \"{group}\" does not say what keeps a dead owner away from it"
            );
            let help = "a node that lost its lease can still write to a disk that others mount meanwhile: write \
                        `fence = [\"local\"]` at the group if each node has storage of its own (or what runs on it \
                        replicates it), or `fence = [\"unsafe\"]` if it is shared and you bear the risk; fences of \
                        the storage itself (rbd, drbd) and fence devices are to come";
            m.error(&resource.span, message, help);
        }
        return Vec::new();
    };
    let mut fences = Vec::new();
    for word in &given.value {
        let Some((_, fence)) = WORDS.iter().find(|(known, _)| *known == word.value) else {
            let hint = did_you_mean(&word.value, WORDS.map(|(known, _)| known));
            let help = "write \"local\" or \"unsafe\"; fences of the storage itself (rbd, drbd) and fence devices are \
                        to come";
            m.error(&word.span, format!("there is no fence \"{}\"{hint}", word.value), help);
            continue;
        };
        if fences.contains(fence) {
            m.error(&word.span, format!("the fence \"{}\" is named twice", word.value), "name it once");
        } else if !fences.is_empty() {
            let help = "write \"local\" if every node has storage of its own, \"unsafe\" if any of it is shared";
            m.error(&word.span, "storage is either each node's own or shared, not both", help);
        } else {
            fences.push(*fence);
        }
    }
    if given.value.is_empty() {
        m.error(&given.span, "`fence` is empty", "write `fence = [\"local\"]`, or leave it out without storage");
    }
    if fences == [Fence::Unsafe] {
        let message =
            format!("nothing keeps a dead owner of group \"{group}\" away from its storage: `fence = [\"unsafe\"]`");
        let help = "a node that lost its lease and hangs may write to it while another has it mounted, which destroys \
                    the filesystem; use it for trials, or where something else excludes that";
        m.warning(&given.span, message, help);
    }
    fences
}

/// The first resource that mounts a block device, and the device.
fn storage(resources: &[RawResource]) -> Option<(&RawResource, &str)> {
    resources.iter().find_map(|r| Some((r, r.kind.as_ref()?.block_device()?)))
}
