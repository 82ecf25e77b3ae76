"""How far a frozen backbone comes by itself: its features, nearest neighbours and logistic regression on them."""
