"""The paper, claim by claim: what each says, the comparison that measures it, and what the stored evidence comes to."""
