"""One trainer for every stage, on accelerate. A stage is what differs: how a batch becomes losses."""
