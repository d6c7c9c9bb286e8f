"""What joins the nodes of a cluster: messages on the wire, links, and the groups a node hosts."""
