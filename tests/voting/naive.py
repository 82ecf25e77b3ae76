"""The method written as loops over images, heads and patches: slow, plain, and independent of the package."""

KERNEL = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def ballot(rows, num_votes):
    """rows: list of heads, each a list of P attentions."""
    counts = [0] * len(rows[0])
    for head in rows:
        order = sorted(range(len(head)), key=lambda i: (-head[i], i))
        for patch in order[:num_votes]:
            counts[patch] += 1
    return counts


def smooth(counts, grid, dilations):
    num_rows, num_columns = grid
    result = [float("-inf")] * len(counts)
    for dilation in dilations:
        for row in range(num_rows):
            for column in range(num_columns):
                total = 0
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        r, c = row + i * dilation, column + j * dilation
                        if 0 <= r < num_rows and 0 <= c < num_columns:
                            total += KERNEL[i + 1][j + 1] * counts[r * num_columns + c]
                patch = row * num_columns + column
                result[patch] = max(result[patch], total)
    return result


def select(scores, mass, count):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], -mass[i], i))
    return order[:count]


def merge(tokens, scores, selected):
    """tokens: P lists of D floats."""
    weight, total = 0.0, [0.0] * len(tokens[0])
    for patch, token in enumerate(tokens):
        if patch in selected:
            continue
        weight += scores[patch]
        total = [t + scores[patch] * x for t, x in zip(total, token, strict=True)]
    return [t / (weight + 1e-6) for t in total]
