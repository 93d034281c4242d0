"""Binary codes: packing, fitting, search within a Hamming radius; arrays in, arrays out."""
