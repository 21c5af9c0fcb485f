//! Regions lie at the same offsets on all ranks.

use octet_kernels::graph::Ownership;
use octet_kernels::memory::Region;

use crate::contract::Workload;
use crate::rank_memory::{RankMemory, Zero};
use crate::sim::toy::{Tiny, tiny};
use crate::testing::Toy;

#[test]
fn what_a_peer_addresses_lies_at_the_same_offset_on_all_ranks() {
    let toy = |ownership| Toy {
        ownership,
        ..tiny(&Tiny { lanes: 8, micro_batches: 8, ..Tiny::default() })
    };
    for toy in [toy(Ownership::even), toy(Ownership::by_unit)] {
        for (ranks, zero) in (1..=8).flat_map(|r| [(r, Zero::Zero0), (r, Zero::Zero1)]) {
            let regions = |rank| -> Vec<Region> {
                let memory = RankMemory::new(&toy, ranks, rank, zero).unwrap();
                // Its own steps decide, and it comes last.
                let (last, common) = memory.arena.regions().split_last().unwrap();
                assert_eq!(last.name, "metrics");
                let owners = toy.ownership(ranks);
                let kept: usize = memory.kept.iter().map(|kept| kept.len()).sum();
                let own =
                    if zero == Zero::Zero0 { toy.layout.elements } else { owners.elements(rank) };
                assert_eq!(kept, own);
                assert!(memory.planes[0].1.bytes >= 4 * kept);
                common.to_vec()
            };
            let first = regions(0);
            assert!((1..ranks).all(|rank| regions(rank) == first), "{ranks} ranks, {zero:?}");
        }
    }
}
