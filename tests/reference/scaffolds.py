"""Bemis–Murcko scaffolds by pruning, and the scaffold split, in plain Python."""


def scaffold_atoms(num_atoms, bonds):
    """Atoms of rings and of chains between rings, and what is double-bonded to them.

    ``bonds`` are (atom, atom, order). Ends are cut off one at a time until there are none; then atoms that hang on
    what is left by a bond of order 2 or more come back.
    """
    kept = set(range(num_atoms))
    while True:
        degree = {atom: 0 for atom in kept}
        for first, second, _ in bonds:
            if first in kept and second in kept:
                degree[first] += 1
                degree[second] += 1
        ends = [atom for atom in kept if degree[atom] <= 1]
        if not ends:
            break
        kept.remove(ends[0])
    back = set()
    for first, second, order in bonds:
        if order >= 2:
            if first in kept and second not in kept:
                back.add(second)
            if second in kept and first not in kept:
                back.add(first)
    return kept | back


def scaffold_split(groups, fractions):
    """Largest groups first: into train while they fit, else into validation while both fit, else into test.

    Of equally large groups the one that appears last comes first, as MoleculeNet, DeepChem and OGB sort them.
    """
    total = len(groups)
    order = sorted(set(groups), key=lambda group: (groups.count(group), groups.index(group)), reverse=True)
    train, val, test = [], [], []
    for group in order:
        members = [sample for sample in range(total) if groups[sample] == group]
        if len(train) + len(members) <= fractions[0] * total:
            train += members
        elif len(train) + len(val) + len(members) <= (fractions[0] + fractions[1]) * total:
            val += members
        else:
            test += members
    return sorted(train), sorted(val), sorted(test)
