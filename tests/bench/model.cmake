# The model alone, one thread, in processor seconds: the demo asks for 3,000 tokens/s of two workers, so each must do half.
add_executable(model_rate ${CMAKE_CURRENT_LIST_DIR}/model_rate.c)
target_link_libraries(model_rate PRIVATE mh_model)
set_target_properties(model_rate PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME model_rate COMMAND model_rate ${CMAKE_SOURCE_DIR}/deploy/demo/model - 1 1500)
set_tests_properties(model_rate PROPERTIES LABELS bench TIMEOUT 120)
