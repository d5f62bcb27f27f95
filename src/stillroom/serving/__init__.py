"""Who answers under a name, and the process that students run in."""
