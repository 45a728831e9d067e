"""Records: rows kept on disk, records with their environment, and the tables and reports made from them."""
