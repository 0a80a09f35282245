-- The same in every cell that runs it: no times, no random numbers.
CREATE TABLE orders (id serial PRIMARY KEY, sku text NOT NULL, note text);
CREATE TABLE customers (id integer GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5), name text UNIQUE);
CREATE SEQUENCE invoices CACHE 20;
CREATE INDEX ON orders (sku);
CREATE VIEW books AS SELECT id FROM orders WHERE sku = 'book';
CREATE ROLE reader;
GRANT SELECT ON orders TO reader;
INSERT INTO orders (sku, note) SELECT 'sku-' || n % 97, repeat(md5(n::text), n % 7) FROM generate_series(1, 10000) n;
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 50) n;
SELECT nextval('invoices');
SELECT lo_from_bytea(4711, convert_to('Terms and conditions: ' || repeat(md5('terms'), 2000), 'UTF8'));
-- Rows that are no longer there have left their traces in the files.
UPDATE orders SET note = 'changed' WHERE id % 1000 = 0;
DELETE FROM customers WHERE id % 10 = 0;
