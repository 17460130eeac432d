add_test(NAME bench_rates COMMAND ${TEST_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/rates_test.py ${CMAKE_BINARY_DIR} ${CMAKE_SOURCE_DIR})
set_tests_properties(bench_rates PROPERTIES LABELS bench TIMEOUT 900 RUN_SERIAL ON)
