"""Storage formats of sparse linear layers and their execution: masked, packed, block-diagonal, CSR."""
