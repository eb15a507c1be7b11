"""`python -m darts`."""

from darts.cli import main

if __name__ == "__main__":
    main()
