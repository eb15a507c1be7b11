import darts_acquisition


def test_all_names_are_there_and_sorted_by_kind():
    assert all(hasattr(darts_acquisition, name) for name in darts_acquisition.__all__)
    assert len(set(darts_acquisition.__all__)) == len(darts_acquisition.__all__)
