import pytest

from darts_utils import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.MissingBandError, LookupError),
        (errors.GridMismatchError, ValueError),
        (errors.MissingDataError, FileNotFoundError),
        (errors.StoreError, OSError),
        (errors.RemoteError, ConnectionError),
        (errors.CheckpointError, ValueError),
        (errors.DeviceError, RuntimeError),
        (errors.NotBuiltError, NotImplementedError),
    ],
)
def test_every_error_is_a_darts_error_and_the_builtin_it_refines(error, builtin):
    assert issubclass(error, errors.DartsError)
    assert issubclass(error, builtin)
    with pytest.raises(builtin, match="what to do"):
        raise error("what to do")


def test_no_error_of_the_module_escapes_the_table_above():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) == 10
    assert all(issubclass(value, errors.DartsError) and value.__doc__ for value in classes)


@pytest.mark.parametrize("error", [errors.MissingDataError, errors.StoreError, errors.MissingBandError])
def test_the_message_is_shown_as_it_was_given(error):
    # KeyError would show its repr, OSError an errno; users read these messages.
    assert str(error("no cube at aux/; run `darts prepare-data`")) == "no cube at aux/; run `darts prepare-data`"
