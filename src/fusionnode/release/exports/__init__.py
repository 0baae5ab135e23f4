"""Files for other systems, from states as they are published: CCSDS messages, CZML, UDL records."""
