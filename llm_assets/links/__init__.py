"""The links of the chain: one module a link, plain functions, named like the asset they make."""
