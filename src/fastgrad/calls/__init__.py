"""Calls: equations that wrap a graph to give it rules of its own.

    checkpoint[graph, policy]              backward computes the graph's values again instead of keeping them
    custom_vjp[graph, fwd, bwd]            reverse mode by the user's rule
    custom_jvp[graph, rule]                both modes by the user's rule for tangents

What a graph closes over comes first among the equation's inputs. Rules rewrite calls as any other op; before anything is
scheduled or interpreted `passes.inline` writes out what is left of them.
"""
