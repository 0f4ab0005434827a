//! From the model to what every network element must do. Pure.
