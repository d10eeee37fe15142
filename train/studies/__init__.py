"""Methods and settings, trained and evaluated alike: the tables of the GLCM paper.

catalogue   which studies there are: rows, corpora, columns; only data
config      StudyConfig: the flags of `train study`
plan        what would be done, and about how long it takes
study       carried out: each row trained and looked at; clock: within the minutes given
table       study.json and study.md: means, intervals over seeds, the paper's order
figure      the table as a picture; curves: how its runs were trained; page: study.html
joined      new results beside those that are there, of other seeds, days and machines
claims      what the paper says of these tables, and whether it held; verdicts: all as a picture
learned     what the objectives of Table 5 learned of what they ask for
evidence    what was found, in docs/evidence.md and docs/evidence-details.md
"""
