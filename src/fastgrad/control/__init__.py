"""Control flow as equations: loops and branches whose bodies are graphs, so that every transformation reaches into them.

    bodies    a Python function -> a closed graph; carries that keep their kind
    scan      scan_p    a loop of known length over slices, with a carry
    reverse             its reverse mode: the reverse scan, residuals
    segments            the same in √n memory
    linear              backward graphs without the cotangents that are zero
    while_    while_p   a loop until a condition fails
    guard               indices of branches that run for elements which did not choose them
    switch    switch_p  one of several branches

A body closes over nothing: what the user's function read from outside are its first inputs, the ``consts``. Rules take
bodies apart with `autodiff` and `batching` and put new ones together; nothing here is special to first order.
"""
