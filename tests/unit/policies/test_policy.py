from tests.fakes.worlds import make_policy


def test_equal_bundles_have_equal_digests_whatever_their_version() -> None:
    assert make_policy(1, component="same").sha256 == make_policy(2, component="same").sha256 == make_policy(1, component="same").digest()


def test_any_change_of_a_bundle_changes_its_digest() -> None:
    assert len({make_policy(1).sha256, make_policy(1, user="Hi {{ email }}").sha256, make_policy(1, component="v9").sha256}) == 3
