"""`python -m llm_assets_tests.stores`."""

from llm_assets_tests.stores import main

if __name__ == "__main__":
    main()
