"""The ops: one section each with its rule, NumPy reference, VJP, JVP, batch rule, kernel as data and public function.

    operands       what a public op takes: arrays, tracers, numbers, lists; axes
    shaping        reshape; broadcast_to and reduce_sum, each the other's transpose
    movement       transpose slice flip pad concatenate           elements move, nothing is computed
    pointwise      the factory of elementwise primitives, promotion, cast, select
    comparison     eq ne lt le gt ge, logic, where, clip
    elementwise    arithmetic and the functions of mathematics
    power          x ** y
    transcendental arctan2 sinh log2 hypot logaddexp and their kin
    reduce         sum mean max min var std argmax argmin
    cumulative     cumsum, prod, cumprod
    arrangement    roll diff triu diagonal tile repeat: compositions of movements
    linalg         matmul and its kin
    einsum         sums of products in index notation
    index          take scatter_add check_index                   reading and adding up rows by number
    window         update_slice                                   writing into a strided window
    scatter        scatter                                        writing at indices that may repeat
    subscript      x[...]                                         a key as a path of ops
    assign, at     x[...] = v, x.at[...].add(v)                   the path written backwards
    special        erf ndtr ndtri
    activations    gelu softplus
    nn             logsumexp softmax cross_entropy

Each file imports only from those above it. A primitive is called ``name_p``, the function for users ``name``.
"""
