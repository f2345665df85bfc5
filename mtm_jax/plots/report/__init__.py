"""The report: a page of HTML about one run or several, from view data that functions build."""
