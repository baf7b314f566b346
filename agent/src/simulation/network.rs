//! The backplane of the simulation: several links, each way of each pair its own path, with delay, loss, duplication,
//! reordering (by delay) and cuts.
//!
//! Heartbeats and acknowledgements are datagrams: each copy fares alone. The channel of the cores and of raft sends over all
//! links and takes the first copy; what a cut link swallowed may still come out much later, as TCP does when the link heals.

use super::{clock::Instant, random::Random};

/// Most links that a cluster may have.
pub const LINKS_MAX: usize = 4;
const MACHINES_MAX: usize = 9;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// What an undisturbed and a disturbed network do to a packet.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest delay of a copy.
    pub delay_min: u64,
    /// Longest ordinary delay.
    pub delay_max: u64,
    /// Copies in a thousand that are lost.
    pub loss: u64,
    /// Copies in a thousand that arrive twice.
    pub duplicate: u64,
    /// Copies in a thousand that take up to [`Weather::straggle_max`].
    pub straggle: u64,
    /// The longest delay at all.
    pub straggle_max: u64,
}

impl Weather {
    /// A quiet network.
    pub const CALM: Self = Self {
        delay_min: 20 * MICROSECOND,
        delay_max: 300 * MICROSECOND,
        loss: 0,
        duplicate: 0,
        straggle: 0,
        straggle_max: MILLISECOND,
    };
}

/// The network's state.
pub struct Network {
    links: usize,
    /// How many faults cut this way of this pair on this link.
    cuts: [[[u8; LINKS_MAX]; MACHINES_MAX]; MACHINES_MAX],
    /// What happens to packets now.
    pub weather: Weather,
    /// Whether the channel needs both directions (a TCP connection whose acknowledgements are lost soon stands still).
    pub channel_both_ways: bool,
    random: Random,
}

impl Network {
    /// A calm network of so many links.
    pub const fn new(links: usize, random: Random) -> Self {
        Self {
            links,
            cuts: [[[0; LINKS_MAX]; MACHINES_MAX]; MACHINES_MAX],
            weather: Weather::CALM,
            channel_both_ways: false,
            random,
        }
    }

    /// How many links there are.
    pub const fn links(&self) -> usize {
        self.links
    }

    /// Cuts (or, with `cut` false, takes one cut back from) one way of a pair on one link.
    pub fn set_cut(&mut self, from: u8, to: u8, link: usize, cut: bool) {
        let count = &mut self.cuts[usize::from(from)][usize::from(to)][link];
        *count = if cut { count.saturating_add(1) } else { count.saturating_sub(1) };
    }

    /// Takes all cuts back.
    pub fn heal(&mut self) {
        self.cuts = [[[0; LINKS_MAX]; MACHINES_MAX]; MACHINES_MAX];
    }

    fn passes(&self, from: u8, to: u8, link: usize) -> bool {
        self.cuts[usize::from(from)][usize::from(to)][link] == 0
    }

    fn delay(&mut self) -> u64 {
        let weather = self.weather;
        if self.random.per_mille(weather.straggle) {
            self.random.spread(weather.delay_max, weather.straggle_max)
        } else {
            self.random.range(weather.delay_min, weather.delay_max)
        }
    }

    /// When the copies of a datagram arrive: none, one or two instants.
    pub fn datagram(&mut self, now: Instant, from: u8, to: u8, link: usize) -> [Option<Instant>; 2] {
        if !self.passes(from, to, link) || self.random.per_mille(self.weather.loss) {
            return [None, None];
        }
        let first = now + self.delay();
        let second = self.random.per_mille(self.weather.duplicate).then(|| now + self.delay());
        [Some(first), second]
    }

    /// When a message of the channel arrives: none, one or (rarely, past the window of the de-duplication) two instants.
    pub fn message(&mut self, now: Instant, from: u8, to: u8) -> [Option<Instant>; 2] {
        let mut first: Option<Instant> = None;
        for link in 0..self.links {
            if !self.passes(from, to, link) || (self.channel_both_ways && !self.passes(to, from, link)) {
                continue;
            }
            let mut at = now + self.delay();
            // A lost segment is sent again after the retransmission timeout.
            while self.random.per_mille(self.weather.loss.min(900)) && at < now + 400 * MILLISECOND {
                at += self.random.range(MILLISECOND, 40 * MILLISECOND);
            }
            first = Some(first.map_or(at, |known| known.min(at)));
        }
        match first {
            Some(at) => {
                let late = self.random.per_mille(self.weather.duplicate / 4);
                [first, late.then(|| at + self.random.spread(MILLISECOND, 300 * MILLISECOND))]
            }
            // A connection that outlives the cut delivers what it had queued.
            None if self.random.per_mille(150) => {
                [Some(now + self.random.spread(20 * MILLISECOND, 600 * MILLISECOND)), None]
            }
            None => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_counted_and_one_way() {
        let mut network = Network::new(1, Random::new(1, 1));
        network.set_cut(1, 2, 0, true);
        network.set_cut(1, 2, 0, true);
        network.set_cut(1, 2, 0, false);
        assert!(network.datagram(0, 1, 2, 0)[0].is_none());
        assert!(network.datagram(0, 2, 1, 0)[0].is_some());
        network.set_cut(1, 2, 0, false);
        assert!(network.datagram(0, 1, 2, 0)[0].is_some());
    }
}
