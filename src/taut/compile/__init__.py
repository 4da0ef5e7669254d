"""From a graph to a program: fusion groups, kernels, memory plan, bytecode."""
