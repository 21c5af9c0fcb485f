//! Pieces of a long word against the word as a whole.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::Merges;

proptest! {
    #[test]
    fn pieces_of_any_length_give_the_tokens_of_the_whole(
        pairs in proptest::collection::vec((0..12u32, 0..12u32), 0..24),
        word in proptest::collection::vec(0..3u8, 65..300),
        one_letter in any::<bool>(),
        length in 1..40usize,
    ) {
        // Tokens 0 to 2 are bytes; pair number i makes token 3 + i.
        let pairs = (0u32..).zip(pairs).map(|(rank, pair)| (pair, (rank, 3 + rank)));
        let merges = Merges::new(std::array::from_fn(|byte| byte as u32), pairs);
        let word = if one_letter { vec![0; word.len()] } else { word };
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        merges.encode_long(&word, word.len(), &mut whole);
        merges.encode_long(&word, length, &mut pieces);
        prop_assert_eq!(pieces, whole);
    }
}
