"""`python -m pagestore.service`: what the console script `pagestore` does."""

from pagestore.service.cli import main

if __name__ == "__main__":
    main()
