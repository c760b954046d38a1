"""What nomoat knows before it runs anything: models, their licences and prices, data sets, and how to fetch them."""
