"""Pytest's set-up for the whole workspace."""

# The folder `darts/` has the name of the package inside it. Pytest names test modules after their folders
# (`darts.tests.test_cli`), so the real package has to be in place first.
import darts  # noqa: F401
